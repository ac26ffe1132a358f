#!lua
-- send: send a value to a run, to a join that waits for that or will.
-- Keys    1 sessions (zset)
-- Args    1 now  2 run  3 name  4 to  5 key  6 who  7 body
-- Gives   "busy" (its nodes are made to run again), "taken", "kept", "repeated", "ended" or "missing"
-- Cost    O(joins that wait in the run); one page of edges
-- Repeat  safe with a key
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
local r = run_of(ARGV[2])
local name, to, key, who, body = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local root = phases().node_seen(r, 0)
if not root then return 'missing' end
if call('HEXISTS', r.n, 'w') == 1 then return 'busy' end
if key ~= '' and call('HEXISTS', r.n, 'key: ' .. key) == 1 then return 'repeated' end
if root.state >= SUCCESS then return 'ended' end
local x = extras().waiter_for(r, name, to)
local number = pack('>I4', call('HINCRBY', r.n, 'I', 1))
if key ~= '' then call('HSET', r.n, 'key: ' .. key, '') end
call('HSET', r.n, 'i' .. number, pack('>I6I4HHHH', now, x and x.i or NONE, #name, #to, #key, #who)
  .. name .. to .. key .. who .. body)
if not x then
  local field = extras().kept_at(name, to)
  call('HSET', r.n, field, (call('HGET', r.n, field) or '') .. number)
  return 'kept'
end
finish(r, x, SUCCESS, cell_of(SUCCESS, body), ZERO5, NONE)
walk()
leave()
return 'taken'
