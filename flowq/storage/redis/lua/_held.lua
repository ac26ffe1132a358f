-- Which session holds an id: a read of each session, so that nothing need be written when a message
-- is handed out but its lease. Gives id -> {session, lease}.
local function holders(ids)
  local found = {}
  if #ids == 0 then return found end
  for _, session in ipairs(call('ZRANGE', P .. 'L', 0, -1)) do
    local leases = call('HMGET', P .. 'w:' .. session, unpack(ids))
    for k = 1, #ids do
      if leases[k] then found[ids[k]] = {session, leases[k]} end
    end
  end
  return found
end
