"""How long jobs will take: what workers measure, how much work a job is, and when its turn comes.

``speed`` keeps measured seconds as decaying averages, ``workers`` is where workers publish them
beside a sign of life, ``work`` says what a request makes the engine do, ``queue`` reads which jobs
wait and run, ``simulation`` plays that on, and ``forecasts`` answers for one job. Nothing here
imports torch.
"""
