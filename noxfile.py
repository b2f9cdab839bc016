"""The tests on each Python that the package supports: ``nox``, or ``nox -s tests-3.13 -- tests/unit``."""

import nox

nox.options.default_venv_backend = "venv"


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Install as docs/install.md says, and run the fast tests, or what is named after ``--``."""
    session.install("-c", "constraints.txt", "-e", ".[test]")
    if session.python == "3.11":
        session.run("python", "-m", "pip", "check")
    else:
        session.install("--no-deps", "recbole==1.2.1")
    session.run("python", "-m", "pytest", *session.posargs)
