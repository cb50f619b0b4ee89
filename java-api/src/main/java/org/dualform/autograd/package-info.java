/** Automatic differentiation: a tape of recorded ops. */
package org.dualform.autograd;
