/** Text, tokens and the corpora that models train on. */
package org.dualform.lab.data;
