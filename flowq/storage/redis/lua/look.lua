#!lua flags=no-writes
-- look: say where ids stand.
-- Keys    1 sessions (zset)
-- Args    1 now  2 1 with cells  then the ids
-- Gives   for each: state or -1, attempts, losses, due, whether a run, and its cell or 0; that of a
--         failure where what follows it runs
-- Cost    O(ids * sessions) for those that are queued or running, else O(ids)
-- Repeat  reads only
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
local cells = ARGV[2] == '1'
local out, open, places = {}, {}, {}
for k = 3, #ARGV do
  local id = ARGV[k]
  local one = {-1, 0, 0, 0, 0, 0}
  out[k - 2] = one
  local state
  if #id == 16 and call('HEXISTS', P .. 'm', id) == 1 then
    state = QUEUED
  else
    local cell = #id == 16 and kept(id)
    if cell then
      one[1] = byte(cell) % 16
      if cells then one[6] = cell end
    else
      if #id == 16 then
        one[5] = 1
        id = id .. '\0\0\0\0'
      end
      local at = unpack_('>I4', id, 17) * 32
      local raw = call('GETRANGE', P .. 'c:' .. sub(id, 1, 16), at, at)
      local run = sub(id, 1, 16)
      -- of an index that was dropped, or that a fragment on its way or a lost delivery has taken
      if raw == '\0' and not phases().node_seen(run_of(run), (unpack_('>I4', id, 17))) then raw = '' end
      if raw ~= '' and call('HEXISTS', P .. 'n:' .. run, 'u') == 0 and not is_past(run, byte(raw)) then
        state = byte(raw)
        one[1] = state
        if state == EXPANDED or state == HELD then -- a task once, or still
          local _
          _, one[2], one[3] = record_of(id)
        end
        if state >= EXPANDED and cells then
          local v = call('HGET', P .. 'v:' .. run, sub(id, 17))
          if v then one[6] = sub(v, 6) end
        end
      else
        one[5] = 0
      end
    end
  end
  if state == QUEUED then
    one[1] = QUEUED
    local _
    _, one[2], one[3] = record_of(id)
    local due = call('ZSCORE', P .. 's', id)
    if due then
      one[1] = SCHEDULED
      one[4] = due == 'inf' and 0 or tonumber(due)
    else
      open[#open + 1] = id
      places[#places + 1] = one
    end
  end
end
local held = phases().holders(open)
for k, id in ipairs(open) do
  if held[id] then places[k][1] = RUNNING end
end
return out
