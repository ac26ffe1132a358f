-- What bodies have started: started:<id of a run or task> holds for each the id, and the index (4 bytes)
-- of the node that started it, "" where it is that task or the run's root. It is looked at again after a
-- day, and goes when what it is of is gone.

-- Whether a task alone or a run is known.
local function is_known(id)
  if call('HEXISTS', P .. 'm', id) == 1 or kept(id) then return true end
  return phases().node_seen(run_of(id), 0) ~= nil
end

-- Whether a body that would start something was stopped: the state of what it is of, or a session is told.
local function may_not_start(parent)
  local id, state = sub(parent, 1, 16), nil
  if #parent == 16 then
    local cell = kept(parent)
    state = cell and byte(cell) % 16
    if not state and call('HEXISTS', P .. 'm', parent) == 0 then parent = parent .. '\0\0\0\0' end
  end
  if #parent == 20 then
    local r = run_of(id)
    local x = phases().node_seen(r, (unpack_('>I4', parent, 17))) or phases().node_seen(r, 0)
    local cell = not x and kept(id)
    state = x and x.state or cell and byte(cell) % 16
    if not x then parent = id end -- it is a task alone still
  end
  if state == SKIPPED or state == CANCELLED then return true end
  if state and state >= EXPANDED then return false end
  local told = call('ZRANGE', P .. 'L', 0, -1)
  for k = 1, #told do told[k] = P .. 'z:' .. told[k] end
  if #told == 0 or call('EXISTS', unpack(told)) == 0 then return false end
  for _, key in ipairs(told) do
    if call('SISMEMBER', key, parent) == 1 then return true end
  end
  return false
end

local function note_start(parent, child)
  local key = 'started:' .. sub(parent, 1, 16)
  if call('RPUSH', P .. key, child, sub(parent, 17)) == 2 then call('ZADD', P .. 'x', now + DAY, key) end
end
