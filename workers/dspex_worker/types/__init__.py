"""Types as text and as schemas: written and read the same way by the host and its workers. pydantic comes late."""
