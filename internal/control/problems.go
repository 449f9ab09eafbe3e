package control

import "context"

// Problems lists what the driver knows to be wrong.
func (c Client) Problems(ctx context.Context) ([]Problem, error) {
	return ask[[]Problem](ctx, c, PathProblems, nil)
}

// Ghosts lists the networks and endpoints that Docker does not know.
func (c Client) Ghosts(ctx context.Context) ([]Ghost, error) {
	return ask[[]Ghost](ctx, c, PathGhosts, nil)
}

// Prune removes ghosts by their ids, and returns those that were removed.
func (c Client) Prune(ctx context.Context, ids []string) ([]Ghost, error) {
	pruned, err := ask[Pruned](ctx, c, PathPrune, Prune{IDs: ids})
	return pruned.Removed, err
}
