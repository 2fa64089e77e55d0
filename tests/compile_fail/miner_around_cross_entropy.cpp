// expects: loss::Mined needs a loss that leaves the choice of pairs to a miner
#include <kindred/loss/ce_loss.hpp>
#include <kindred/loss/mined.hpp>
#include <kindred/miner/batch_hard_miner.hpp>

static_assert(sizeof(kindred::loss::Mined<kindred::miner::BatchHardMiner, kindred::loss::CELoss>) >
              0);
