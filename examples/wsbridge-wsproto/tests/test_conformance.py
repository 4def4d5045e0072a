"""The whole conformance suite, on this connector."""

from wsbridge.conformance import ConnectorSuite


class TestConformance(ConnectorSuite):
    connector = "wsproto"
