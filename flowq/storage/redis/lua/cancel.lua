#!lua
-- cancel: stop tasks or nodes.
-- Keys    1 sessions (zset)
-- Args    1 now  then the ids
-- Gives   for each 1 if it is known, 0 if not; then how many cursors are left
-- Cost    O(ids * sessions); one page of edges
-- Repeat  safe
-- @include _base
-- @include _queue
-- @include _rows
-- @include _runs
-- @include _ended
-- @include _finish
-- @include _back
-- @include _held
local ids = {}
for k = 2, #ARGV do ids[#ids + 1] = ARGV[k] end
local held = holders(ids)
local out = {}
for k, id in ipairs(ids) do
  out[k] = 1
  local lease = held[id]
  if lease then
    local session, value = lease[1], lease[2]
    local flags = byte(value, 5)
    if not has(flags, 16) then
      call('HSET', P .. 'w:' .. session, id, sub(value, 1, 4) .. string.char(flags + 16) .. sub(value, 6))
      call('SADD', P .. 'z:' .. session, id)
      call('ZADD', P .. 'y:' .. session, 0, 1)
    end
  elseif #id == 16 then
    local row = body_row(id)
    if row then
      if not call('ZSCORE', P .. 's', id) then leave_list(id, queue_of(id, row)) end
      end_task(id, row, CANCELLED, cell_of(CANCELLED, 'cancelled'), settled_by(id))
    elseif not kept(id) then
      out[k] = 0
    end
  else
    local r = run_of(sub(id, 1, 16))
    local i = unpack_('>I4', id, 17)
    local x = node(r, i)
    if not x then
      out[k] = 0
    elseif x.state < EXPANDED then
      if x.state == QUEUED and not call('ZSCORE', P .. 's', id) then
        leave_list(id, lane_of(r, x))
      end
      if x.state == WAITING then x.ready = 0 end
      finish(r, x, CANCELLED, cell_of(CANCELLED, 'cancelled'), settled_by(id), NONE)
      forget(id)
    end
  end
end
walk()
out[#out + 1] = leave()
return out
