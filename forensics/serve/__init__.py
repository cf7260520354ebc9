"""`deepfake serve`: a page and an API on this machine, for files that must not leave it.

`server.run` starts it; `app` holds the routes, `security` decides who may call them, `queue` has
one file examined after the other, `store` keeps what is on disk. Needs the extra `serve`.
"""
