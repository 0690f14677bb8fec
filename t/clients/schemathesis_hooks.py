"""Lets schemathesis send a body of lines, which it has no notion of, as the text that it is."""

import schemathesis

schemathesis.serializer.alias("application/x-ndjson", "text/plain")
