-- Dooms a folder that nobody owns: no record says `says` under `field`. 0: somebody does, or it is
-- not sure, since Redis' life is no more the one that `life` names.
if redis.call('HGET', key(unpack(given.owner)), given.field) == given.says then return 0 end
if given.life then
  local life = redis.call('HMGET', key('life'), 'told', 'name')
  if life[1] ~= told() or life[2] ~= given.life then return 0 end
end
redis.call('SADD', key('doomed'), given.prefix)
return 1
