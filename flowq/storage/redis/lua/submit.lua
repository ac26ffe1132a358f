#!lua
-- submit: store one page of a run's nodes; with the last page the root starts.
-- Keys    1 sessions (zset)
-- Args    1 now  2 run  3 first node  4 nodes of this page  5 nodes of the run
--         6 ttls (12 bytes) and name  7 lanes so far  8 records  9 names of their queues, "\0" behind each
--         10 its parent or ""  then for each node: index, row
-- Gives   "known", "refused", "lost" (another upload is under way), or how many cursors are left
-- Cost    O(nodes of the page); at most 4,000 entries start here
-- Repeat  safe: the same page again changes nothing
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
-- @include _started
front = false
local run, first, count, total = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local r = run_of(run)
local stored = call('HGET', r.n, 'u')
if not stored and call('EXISTS', r.n) == 1 then
  local root = node(r, 0)
  if not root or not is_past(run, root.state) then return 'known' end
end
if ARGV[10] ~= '' and may_not_start(ARGV[10]) then
  if stored then call('UNLINK', r.n, r.c) end
  return 'refused'
end
if first == 0 then
  r.nodes = {}
  call('UNLINK', r.n, r.c, r.v)
  call('ZREM', P .. 'x', 'r' .. run)
  call('HSET', r.n, 'r', pack('>I6', now) .. ARGV[6])
elseif not stored then
  return 'lost'
elseif tonumber(stored) ~= first then
  return tonumber(stored) == first + count and '0' or 'lost'
end
for k = 11, #ARGV, MANY do call('HSET', r.n, unpack(ARGV, k, math.min(k + MANY - 1, #ARGV))) end
call('APPEND', r.c, ARGV[8])
if first + count < total then
  call('HSET', r.n, 'u', first + count)
  call('PEXPIRE', r.n, 3600000)
  call('PEXPIRE', r.c, 3600000)
  return '0'
end
call('HDEL', r.n, 'u')
call('HSET', r.n, 'q', ARGV[7]) -- all lanes are known with the last page
if ARGV[10] ~= '' then note_start(ARGV[10], run) end
for queue in string.gmatch(ARGV[9], '(.-)%z') do call('SADD', P .. 'q', queue) end
call('PERSIST', r.n)
call('PERSIST', r.c)
local at = call('INCR', P .. 'runs:n')
call('ZADD', P .. 'runs', at, run)
call('SADD', P .. 'active', run)
start(r, node(r, 0))
page = MANY
walk()
return tostring(leave(true))
