// Every part of a page that names a view is drawn by it; all can be read without this.
import { home } from "./home.js";
import { people } from "./people.js";
import { spectra } from "./spectra.js";

const VIEWS = { home, people, spectra };
for (const root of document.querySelectorAll("[data-view]")) VIEWS[root.dataset.view](root);
