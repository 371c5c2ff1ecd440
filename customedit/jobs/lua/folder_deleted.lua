-- Notes that the files of a deleted owner's folder are removed, for `remember` seconds.
redis.call('ZADD', key('deleted'), seconds(now), given.prefix)
redis.call('ZREMRANGEBYSCORE', key('deleted'), '-inf', seconds(now - given.remember))
redis.call('SREM', key('deleting'), given.prefix)
return 1
