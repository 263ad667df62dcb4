"""What can go wrong, in words that say what to do; the command line prints them as they are."""


class CounterpointError(Exception):
    """Any error that Counterpoint raises on purpose; its text names the cause and the remedy."""


class DataError(CounterpointError):
    """The images, tables or splits can't be used as they are."""


class LeakageError(DataError):
    """The split that came with the data puts a patient, or the same image, in two parts."""


class SettingsError(CounterpointError):
    """A method, option or value is unknown or out of range."""


class EncryptionError(SettingsError):
    """What leaves can't be encrypted, or what came can't be decrypted.

    A site tells the server of it word for word: it names keys by their marks, tensors and sizes,
    and nothing else of the site.
    """


class TrainingError(CounterpointError):
    """Training went wrong at a named round and site (for example a loss that is not finite).

    Also where there is too little memory, in training or prediction.
    """


class PayloadError(CounterpointError):
    """What a site sent has wrong names, shapes or values."""


class StateError(CounterpointError):
    """A run folder can't be read, written or continued."""


class WriteError(StateError):
    """A file can't be written: the disk is full, or the place is not to be written to."""


def nearest(word: str, known: list[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to ``word``, or an empty text.

    >>> nearest("prfl", ["prrfl", "harmofl"])
    "; did you mean 'prrfl'?"
    """
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    close = close or difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def first_line(error: BaseException) -> str:
    """First line of what an error of somebody else's says; its kind, if it says nothing.

    >>> first_line(ValueError("no such thing\\nat all")), first_line(NotImplementedError())
    ('no such thing', 'NotImplementedError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
