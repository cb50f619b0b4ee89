/** Optimizers over the parameters of a model, and gradient clipping. */
package org.dualform.optim;
