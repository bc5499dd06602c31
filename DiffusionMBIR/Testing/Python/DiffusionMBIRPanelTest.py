"""In the application: the panel as PythonQt shows it.  Every setting has its widget, and both follow each other."""

import sys
import unittest

import slicer


class DiffusionMBIRPanelTest(unittest.TestCase):
    def setUp(self):
        self.errors = []
        self._hook, sys.excepthook = sys.excepthook, lambda _kind, error, _trace: self.errors.append(error)
        slicer.mrmlScene.Clear(0)
        slicer.util.selectModule("DiffusionMBIR")
        self.panel = slicer.util.getModuleWidget("DiffusionMBIR").panel

    def tearDown(self):
        sys.excepthook = self._hook
        assert self.errors == [], "errors in slots"

    def test_every_widget_writes_to_the_scene_and_follows_it(self):
        parameters = self.panel.parameters
        for name, value in (("views", 31), ("steps", 17), ("lam", 0.003), ("seed", 12), ("method", "sirt")):
            parameters.set(name, value)
            assert self.panel.fields.editors[name]._read() == value
        self.panel.form.views.setValue(44)
        assert parameters.get("views") == 44
        self.panel.form.method.setCurrentIndex(0)
        assert parameters.get("method") == "dual"

    def test_button_says_what_is_missing(self):
        assert not self.panel.form.runButton.enabled
        assert "volume" in self.panel.form.runButton.text

    def test_scene_closes_and_opens(self):
        self.panel.parameters.set("views", 99)
        slicer.mrmlScene.Clear(0)
        assert self.panel.parameters.get("views") == 8
        assert self.panel.fields.editors["views"]._read() == 8


if __name__ == "__main__":
    unittest.main()
