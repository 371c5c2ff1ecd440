-- Marks a folder that nobody owns for deletion: no record says `says` under `field`. 0: somebody
-- owns it, or it is not sure, since the epoch of Redis is no more the one that `epoch` names.
if redis.call('HGET', key(unpack(given.owner)), given.field) == given.says then return 0 end
if given.epoch then
  local epoch = redis.call('HMGET', key('epoch'), 'identity', 'name')
  if epoch[1] ~= identity() or epoch[2] ~= given.epoch then return 0 end
end
redis.call('SADD', key('deleting'), given.prefix)
return 1
