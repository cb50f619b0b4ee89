/** Transformers over the native operations: models, their parameters, cached generation and probes. */
package org.dualform.nn;
