-- Puts a job of the journal back unless it is there: unfinished ones are queued, finished ones
-- are as they were. The webhook of one whose final.json is missing may not have been sent: it is
-- sent again. One that is there and could be claimed is put into its queue if it is not in it.
local present = load(given.id)
if present then
  if present.state == 'queued' or (present.state == 'running' and present.lease_until <= now) then
    offer(present)
    redis.call('ZADD', key('wakeups'), 'NX', seconds(now), present.id)
  end
  return 0
end
if deleted(given.prefix) then return 0 end
redis.call('HSET', key('job', given.id), 'body', given.body, 'tenant', given.tenant,
  'kind', given.kind, 'cost', given.cost, 'uses', table.concat(given.uses, ' '))
for name, value in pairs(given.fields) do
  redis.call('HSET', key('job', given.id), name, value)
end
if given.batch then join_batch(given.batch, given.batch_place, given.id, given.tenant) end
redis.call('ZADD', key('jobs', given.tenant), 0, given.id)
if given.fields.queued_at then
  redis.call('HSET', key('job', given.id), 'place', given.fields.queued_at)
end
local job = load(given.id)
each_index(job.tenant, job.kind, job.uses, function(k) redis.call('ZADD', k, 0, job.id) end)
if given.finished_at then
  redis.call('ZADD', key('jobs', given.tenant, job.state), 0, given.id)
  redis.call('ZADD', key('finished'), given.finished_at, given.id)
  if not given.journaled then
    redis.call('SADD', key('unjournaled'), given.id)
    add_webhook(job)
  end
else
  redis.call('SADD', key('open', given.tenant), given.id)
  each_use(job, function(k) redis.call('SADD', k, given.id) end)
  enqueue(job, 0)
end
return 1
