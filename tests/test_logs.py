"""What a peer wrote, in the log."""

from __future__ import annotations

import logging

import pytest

from wsbridge._common.logs import MOST, PeersLogger, log_failure, lower, said, shown

UGLY = "\n\x1b[31mforged\u2028\u202e"


@pytest.mark.rule("LOG-2")
@pytest.mark.parametrize("text", ["", "/chat", UGLY, "\"'", "x" * 100_000, UGLY * 1000, b"\xff\n", b"x" * 1000])
def test_what_is_shown_is_on_one_line_escaped_and_cut(text: str | bytes) -> None:
    found = shown(text)
    assert found.isprintable()
    assert found.startswith(repr(text[:MOST]))
    assert (found == repr(text)) is (len(text) <= MOST)
    assert len(text) <= MOST or str(len(text)) in found
    assert len(found) < 10 * MOST


@pytest.mark.rule("LOG-2")
def test_what_an_exception_says_is_so_too() -> None:
    assert said(ValueError("not a number")) == "not a number"
    found = said(ValueError(UGLY + "x" * 100_000))
    assert found.isprintable()
    assert found.startswith("\\n\\x1b[31mforged")
    assert len(found) < 10 * MOST


@pytest.mark.rule("CODEC-2", "ERR-1")
def test_a_failure_is_logged_by_whose_it_is(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError(UGLY)
    log_failure("a callback", "c1", UGLY, error)
    log_failure("a callback", "c1", UGLY, error, by_peer=True)
    first, second = caplog.records
    assert (first.levelno, second.levelno) == (logging.ERROR, logging.WARNING)
    assert first.exc_info is not None
    assert first.exc_info[1] is error
    assert (second.exc_info, getattr(second, "error")) == (None, error)  # noqa: B009
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert "forged" in second.getMessage()


@pytest.mark.rule("LOG-1")
def test_a_logger_of_peers_has_the_level_debug(caplog: pytest.LogCaptureFixture) -> None:
    own = PeersLogger("wsbridge-test.peers")
    with caplog.at_level(logging.INFO):
        own.info("connection open")
        own.warning("Invalid HTTP request received.")
        assert caplog.records == []
        own.error("a failure of the server")
    with caplog.at_level(logging.DEBUG):
        own.warning("Invalid HTTP request received.")
        own.log(5, "a trace")
    assert [(record.name, record.levelno) for record in caplog.records] == [
        ("wsbridge-test.peers", logging.ERROR),
        ("wsbridge-test.peers", logging.DEBUG),
    ]


@pytest.mark.rule("LOG-1")
def test_a_filter_lowers_a_record(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("wsbridge-test.filtered")

    def lowered(record: logging.LogRecord) -> bool:
        return lower(record, logger)

    logger.addFilter(lowered)
    try:
        with caplog.at_level(logging.INFO):
            logger.warning("one")
        with caplog.at_level(logging.DEBUG):
            logger.warning("two")
    finally:
        logger.removeFilter(lowered)
    assert [(record.getMessage(), record.levelname) for record in caplog.records] == [("two", "DEBUG")]
