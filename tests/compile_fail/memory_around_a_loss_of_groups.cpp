// expects: loss::CrossBatchMemory needs a loss of pairs that a miner could choose
#include <kindred/loss/cross_batch_memory.hpp>
#include <kindred/loss/sup_con_loss.hpp>

static_assert(sizeof(kindred::loss::CrossBatchMemory<kindred::loss::SupConLoss>) > 0);
