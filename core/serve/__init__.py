"""Models on the web: an API that clients of OpenAI's understand, and a chat page. Extra: serve (starlette, uvicorn)."""
