// expects: loss::Mined<Miner, Loss>: the first argument is a loss
#include <kindred/loss/circle_loss.hpp>
#include <kindred/loss/mined.hpp>
#include <kindred/miner/batch_hard_miner.hpp>

static_assert(
    sizeof(kindred::loss::Mined<kindred::loss::CircleLoss, kindred::miner::BatchHardMiner>) > 0);
