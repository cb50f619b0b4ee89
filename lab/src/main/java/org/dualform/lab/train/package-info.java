/** The training loop: schedules, checkpoints, logs. */
package org.dualform.lab.train;
