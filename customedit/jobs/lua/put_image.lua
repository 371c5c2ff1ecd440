-- Keeps an image's record unless there is one; gives the one that is kept. false: this upload is
-- deleted, which a repeat (the answer got lost) or a recovery may find.
local k = key('image', given.tenant, given.id)
if redis.call('EXISTS', k) == 0 then
  if deleted(given.prefix) then return false end
  redis.call('HSET', k, 'tenant', given.tenant, 'record', given.record, 'place', given.place,
    'prefix', given.prefix)
  redis.call('ZADD', key('images', given.tenant), 0, given.place)
end
return redis.call('HGET', k, 'record')
