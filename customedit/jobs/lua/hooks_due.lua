-- Takes deliveries that are due. Whoever takes one has `hold` seconds before it is due again.
local ids = redis.call('ZRANGEBYSCORE', key('outbox'), '-inf', seconds(now),
  'LIMIT', 0, given.limit)
local out = {}
for _, id in ipairs(ids) do
  if redis.call('EXISTS', key('hook', id)) == 0 then
    redis.call('ZREM', key('outbox'), id)
  else
    redis.call('ZADD', key('outbox'), seconds(now + given.hold), id)
    local tries = redis.call('HINCRBY', key('hook', id), 'tries', 1)
    local hook = redis.call('HMGET', key('hook', id), 'url', 'tenant')
    out[#out + 1] = {id, hook[1], hook[2], tries}
  end
end
return out
