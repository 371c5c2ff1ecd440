-- Notes how the delivery of a webhook went. `wait`: seconds until the next try, none: it was the
-- last one. `answered`: whether the receiver answered at all; one that fails again and again is left
-- alone for a time that grows up to `longest`.
local hook = redis.call('HMGET', key('hook', given.id), 'url')
if not hook[1] then return 0 end -- its job was deleted meanwhile
local receiver = receiver_key(given.tenant, hook[1])
if given.answered then
  redis.call('DEL', receiver)
else
  local failures = redis.call('HINCRBY', receiver, 'failures', 1)
  local pause = math.min(given.first * 2 ^ math.max(0, failures - given.failures), given.longest)
  redis.call('HSET', receiver, 'until', seconds(now + pause))
  redis.call('EXPIRE', receiver, 86400)
end
if given.wait then
  redis.call('ZADD', key('outbox', given.tenant), seconds(now + given.wait), given.id)
else
  drop_webhook(given.id, given.tenant)
end
return 1
