-- Puts a delivery off, unless its job was deleted meanwhile.
if redis.call('EXISTS', key('hook', given.id)) == 0 then return 0 end
redis.call('ZADD', key('outbox'), seconds(now + given.wait), given.id)
return 1
