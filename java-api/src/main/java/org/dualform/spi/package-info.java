/** What a backend plug-in implements. */
package org.dualform.spi;
