-- Notes how a try to deliver a webhook went. `wait`: seconds until the next one; `ended`: how the
-- delivery did, if this was the last; neither: it is forgotten. `status`, `problem`: of the answer,
-- and what was wrong with it. `answered`: whether the receiver answered at all; one that fails again and again is left
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
redis.call('HDEL', key('hook', given.id), 'status', 'problem')
for _, name in ipairs({'status', 'problem'}) do
  if given[name] then redis.call('HSET', key('hook', given.id), name, given[name]) end
end
if given.wait then
  redis.call('ZADD', key('outbox', given.tenant), seconds(now + given.wait), given.id)
elseif given.ended then
  end_webhook(given.id, given.tenant, given.ended)
else
  drop_webhook(given.id, given.tenant)
end
return 1
