-- Keeps the record of an API key that is revoked: also while Redis is full, since a key that was
-- stolen must end at once.
if redis.call('HEXISTS', key('key', given.id), 'record') == 0 then return 0 end
redis.call('HSET', key('key', given.id), 'record', given.record)
return 1
