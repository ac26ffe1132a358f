#!lua flags=no-writes
-- status: count what is in the store.
-- Keys    1 sessions (zset)
-- Args    1 now
-- Gives   scheduled, running, dead, runs that go on, then name and ready of each queue
-- Cost    O(queues + sessions)
-- Repeat  reads only
-- @include _base
-- @include _queue
local running = 0
for _, session in ipairs(call('ZRANGE', P .. 'L', 0, -1)) do
  local w = P .. 'w:' .. session
  running = running + call('HLEN', w) - call('HEXISTS', w, 'i') - call('HEXISTS', w, 'b')
end
local out = {call('ZCARD', P .. 's') - (tonumber(call('GET', P .. 's:o') or 0)), running, call('ZCARD', P .. 'deads'), call('SCARD', P .. 'active')}
for _, queue in ipairs(call('SMEMBERS', P .. 'q')) do
  out[#out + 1] = queue
  out[#out + 1] = ready_in(queue)
end
return out
