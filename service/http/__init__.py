"""HTTP for every route: connections, access, limits, problems, and cached responses. Nothing here knows of images."""
