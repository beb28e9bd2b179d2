"""Many terminals, one service: who of them serves a request, how many at a time, and which publishes."""
