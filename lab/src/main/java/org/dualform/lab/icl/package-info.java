/** In-context learning: tasks, episodes, finetuning of keys and values, records. */
package org.dualform.lab.icl;
