/** Tensors in files. */
package org.dualform.io;
