#!lua
-- renew: push back the deadlines of sessions, and say what they must stop.
-- Keys    1 sessions (zset)
-- Args    1 now  2 lease, ms  3 period, ms  then the sessions
-- Gives   for each session the ids to stop, or 0 where it is gone
-- Cost    O(log n) a session; O(all sessions) after a gap
-- Repeat  safe
-- @include _base
-- @include _queue
-- @include _rows
-- @include _runs
-- @include _ended
-- @include _finish
-- @include _phases
-- @include _extras
-- @include _along
-- @include _limits
-- @include _parks
-- @include _back
close_gap(tonumber(ARGV[3]))
local out = {}
for k = 4, #ARGV do
  local session = ARGV[k]
  if call('ZSCORE', P .. 'L', session) then
    call('ZADD', P .. 'L', now + tonumber(ARGV[2]), session)
    out[#out + 1] = call('SMEMBERS', P .. 'z:' .. session)
  else
    out[#out + 1] = 0
  end
end
return out
