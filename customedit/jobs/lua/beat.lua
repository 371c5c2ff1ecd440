-- A worker says that it lives: its report stays for `gone` seconds, and those of workers that said
-- nothing for so long are forgotten. `speed`: what it measured, kept for `keep` seconds for the next
-- worker on the same `machine`.
redis.call('SET', key('worker', given.name), given.report, 'PX', math.ceil(given.gone * 1000))
redis.call('ZADD', key('workers'), seconds(now), given.name)
redis.call('ZREMRANGEBYSCORE', key('workers'), '-inf', seconds(now - given.gone))
if given.speed then
  redis.call('SET', key('speed', given.machine), given.speed, 'EX', given.keep)
end
return 1
