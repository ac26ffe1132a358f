-- Settling. `meta` is the delivery (4 bytes) and the kind of an outcome: 0 done, 1 retry, 2 failed,
-- 3 skipped, 4 cancelled, 5 given back, 6 unknown task, 7 failed and dead, 8 expands. `data` is its
-- cell; the delay in ms for a retry; length (2 bytes), reason and cell for a dead one; what _grow.lua
-- says where it expands.
-- A lease is delivery 4, flags 1 (16 stopping, 32 more children in the row, 64 alone, 128 a node whose
-- row says how it ends; none is a kind, so that a lease which equals `meta` is a plain task, done), and
-- for a node: since 6, bits 1, owner 4, children (ranges).
local STATE_OF = {[2] = FAILED, [3] = SKIPPED, [4] = CANCELLED}
local PATIENCE = 600000

local function past(id, meta)
  local function by_record()
    local delivery, _, _, how = record_of(id)
    return how == 1 and delivery == unpack_('>I4', meta)
  end
  local settled
  if #id == 16 then
    local _
    _, settled = kept(id)
    if not settled then
      if by_record() then return 'r' end
      id = id .. '\0\0\0\0' -- it may have become a run
    end
  end
  if not settled then
    local raw = call('HGET', P .. 'v:' .. sub(id, 1, 16), sub(id, 17))
    settled = raw and sub(raw, 1, 5)
  end
  if settled and byte(settled, 5) == LOST then return 'x' end
  if settled then return sub(settled, 1, 4) == sub(meta, 1, 4) and 'r' or 'x' end
  return by_record() and 'r' or 'x'
end

-- The cell of a task that was stopped, whatever it came to.
local function stopped_cell(kind, meta, data)
  if kind == 4 then return data end
  local started = 0
  if kind == 7 then data = sub(data, 3 + unpack_('>H', data)) end
  if kind ~= 1 and kind ~= 6 and kind ~= 8 and #data >= 21 then started = unpack_('>I8', data, 6) end
  return cell_of(CANCELLED, 'cancelled', unpack_('>I4', meta), started)
end

-- Counts a success in the children that a lease names; from the first race on that waits, since which of
-- its parents wins is seen when all is settled that comes with this.
local function count_children(r, i, lease)
  local walked = 0
  for at = 17, #lease, 8 do
    local first, n = unpack_('>I4I4', lease, at)
    page = page - n
    for j = first, first + n - 1 do
      local child = node(r, j)
      if child then
        if child.flags >= 32 and phases().is_race(r, child) then
          todo[#todo + 1] = {r, i, SUCCESS, NONE, walked, front}
          return
        end
        count(r, child, SUCCESS, NONE)
      end
      walked = walked + 1
    end
  end
end

-- A node that is done: what it counts in is in its lease. Where nodes beside it may be stopped, or are,
-- its edges wait until all that is settled with it is.
local function done_node(id, lease, meta, cell)
  local r = run_of(sub(id, 1, 16))
  local i4 = sub(id, 17)
  local i = unpack_('>I4', i4)
  local bits, owner = unpack_('>BI4', lease, 12)
  local o = node(r, owner)
  if o and o.flags >= 160 and extras().has_enough(r, o) then
    return finish(r, node(r, i), SUCCESS, cell, meta, NONE) -- it is not wanted any more
  end
  r.cells[#r.cells + 1] = i4
  r.cells[#r.cells + 1] = meta .. cell
  tell(id)
  local x = r.nodes[i]
  if x then
    x.state = SUCCESS
    dirty(r, x)
  else
    r.done[#r.done + 1] = i
  end
  if has(byte(lease, 5), 32) or page < -PAGE or o and (o.mode > 0 or o.flags >= 128) then
    if #lease > 16 or has(byte(lease, 5), 32) then spread(r, i, SUCCESS, NONE) end
  else
    count_children(r, i, lease)
  end
  if o and o.flags >= 160 then
    alongs().tell(r, o, i, true)
    extras().free(r, o)
  end
  count_owner(r, owner, i, 0, bits, SUCCESS, NONE)
end

-- Applies an outcome that does not simply say "done", of a message that the session holds.
local function settle_other(id, lease, meta, data)
  local kind = byte(meta, 5)
  local row = body_row(id)
  if not row then return end
  if has(byte(lease, 5), 16) then
    local state, cell = extras().stopped_as(id, stopped_cell(kind, meta, data))
    return end_task(id, row, state, cell, meta)
  end
  if kind == 0 then
    return end_task(id, row, SUCCESS, data, meta)
  elseif STATE_OF[kind] then
    return end_task(id, row, STATE_OF[kind], data, meta)
  elseif kind == 7 then
    local n = unpack_('>H', data)
    bury(id, row, sub(data, 3, 2 + n))
    return end_task(id, row, FAILED, sub(data, 3 + n), meta)
  end
  local delivery = unpack_('>I4', meta)
  if kind == 8 then return expand(id, row, delivery, data) end
  if #id == 20 then run_of(sub(id, 1, 16)).moved = true end
  local _, attempt, losses, _, since = record_of(id)
  local queue = queue_of(id, row)
  if kind == 1 then
    remember(id, delivery, attempt + 1, losses, 1, since)
    if tonumber(data) > 0 then put_off(id, row) end
    call('ZADD', P .. 's', now + tonumber(data), id)
    call('ZADD', P .. 'k:' .. queue, 0, 1)
  elseif kind == 5 then
    remember(id, delivery, attempt, losses, 1, since)
    give_back(id, row, losses, true)
  else
    if since == 0 then since = now end
    local waited = now - since
    if waited >= PATIENCE then
      bury(id, row, 'unknown task')
      return end_task(id, row, FAILED, data, meta)
    end
    remember(id, delivery, attempt, losses, 1, since)
    put_off(id, row)
    call('ZADD', P .. 's', now + math.min(math.max(waited, 1000), 30000), id)
    call('ZADD', P .. 'k:' .. queue, 0, 1)
  end
end
