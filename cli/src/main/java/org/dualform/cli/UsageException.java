package org.dualform.cli;

/** What the user gave cannot be used; the message is the one sentence shown, the exit code {@link ExitCode#USAGE}. */
final class UsageException extends RuntimeException {
    private static final long serialVersionUID = 1;

    UsageException(String sentence) {
        super(sentence);
    }
}
