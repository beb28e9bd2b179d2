"""A seeded, deterministic A-share market that says of every value that it is simulated.

Everything in it is a function of the seed, the symbol and the market's time: the day's frame of an instrument
(``days``) is computed directly, what happens within the day (``tape``) follows from it event by event. So it does not
matter when a source was started, how often it is polled or how many symbols it has.
"""
