"""The container engine. Front ends read `engine.api`; `engine.local.open_engine()` opens the one in this process.

This file stays empty of imports: the supervisor starts with `python -I -S` and pays for each of them.
"""
