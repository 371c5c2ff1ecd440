"""How long jobs will take: what workers measure, how much work a job is, and when its turn comes.

``speed`` keeps measured seconds as decaying averages, ``workers`` is where workers publish them
beside a sign of life, ``work`` says what a request makes the engine do, ``simulation`` plays the
queue on, and ``forecasts`` reads the queue and answers for one job. Nothing here imports torch.
"""
