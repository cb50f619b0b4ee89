/** JSON from untrusted files. Internal: no part of the API. */
package org.dualform.json;
