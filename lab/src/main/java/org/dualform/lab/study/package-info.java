/** Experiments that train models and put their in-context learning beside what can be known about it. */
package org.dualform.lab.study;
