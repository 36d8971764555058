"""The decorators on pydantic models: the second door to the engine, plain Python."""
