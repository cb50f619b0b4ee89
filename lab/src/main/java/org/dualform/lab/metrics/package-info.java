/** Similarities of in-context learning and finetuning, with their baselines. */
package org.dualform.lab.metrics;
