#!lua
-- reschedule: let an unstarted task become due at another time.
-- Keys    1 sessions (zset)
-- Args    1 now  2 id  3 delay, ms  4 due, ms
-- Gives   1 if it was moved, 0 if it was left as it is, 2 if its run is made to run again
-- Cost    O(sessions + log n), and a page of those that may have its places; for a node the place in its list, 100,000 at most
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
local id = ARGV[2]
if #id == 20 and call('SISMEMBER', P .. 'again', sub(id, 1, 16)) == 1 then return 2 end
local row = body_row(id)
if not row or phases().holders({id})[id] then return 0 end
if #id == 20 then
  local x = node(run_of(sub(id, 1, 16)), (unpack_('>I4', id, 17)))
  if not x or x.state ~= QUEUED then return 0 end
  if has(x.flags, 4) then
    call('ZADD', P .. 's', math.max(now + tonumber(ARGV[3]), tonumber(ARGV[4])), id)
    extras().rouse(run_of(sub(id, 1, 16)))
    flush()
    return 1
  end
end
if #id == 20 then run_of(sub(id, 1, 16)).moved = true end
local queue, priority = queue_of(id, row)
local _, _, losses = record_of(id)
local due = math.max(now + tonumber(ARGV[3]), tonumber(ARGV[4]))
local scheduled = call('ZSCORE', P .. 's', id)
if due > now then
  if not scheduled then
    if #id == 20 and call('HEXISTS', P .. 'd', id) == 0 -- what a settlement queued keeps its turn
      and call('LPOS', P .. 'r:' .. queue .. ':' .. priority * 2 + 1, id, 'MAXLEN', 100000) then
      remember(id, 0, 0, 0, 2, 0)
    end
    leave_list(id, queue, priority)
    put_off(id, row)
  end
  call('ZADD', P .. 's', due, id)
  call('ZADD', P .. 'k:' .. queue, 0, 1)
elseif scheduled then
  call('ZREM', P .. 's', id)
  if may_queue(id, row) then push(id, queue, priority, call('HEXISTS', P .. 'd', id) == 1, losses > 0) end
end
walk()
leave()
return 1
